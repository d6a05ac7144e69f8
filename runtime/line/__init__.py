"""The inspection line: several cameras, one engine, what is decided and what is put out."""
