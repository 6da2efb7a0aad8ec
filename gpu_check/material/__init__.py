"""What the stages train on: models, a tokenizer, pictures, rows and packs, all made here."""
