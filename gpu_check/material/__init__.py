"""What the stages train on: models with random weights, a synthetic tokenizer, drawn pictures, rows and packs."""
