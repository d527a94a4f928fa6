"""The pod: the program that follows aliases and answers predictions with the versions that they name."""
