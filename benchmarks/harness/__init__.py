"""What every benchmark is run with: scenes, clients in processes of their own, figures and reports."""
