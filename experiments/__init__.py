"""What was tried to teach a model, each with its data, its code and its run files; results in
docs/results.md."""
