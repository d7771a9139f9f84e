"""What several stages ask of a text: its words, sentences, hashes, language."""
