"""What is told of scored clips: figures, intervals, calibration, ensembles, thresholds, averages, comparisons."""
