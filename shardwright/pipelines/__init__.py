"""What runs: stages as Beam jobs over parts, recipes, the command line."""
