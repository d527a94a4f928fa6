"""The rules of experiments, runs and logged models. Pure: identifiers, time and the actor come in from outside."""
