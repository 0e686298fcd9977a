"""Programs that retrain, select and evaluate derived networks."""
