"""Real faults, put into real trainings: what can happen, how it is made to happen, and what must be so afterwards."""
