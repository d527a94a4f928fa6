"""The rules of models, their versions and aliases, and of policies. Pure: ids, time and the actor come from outside."""
