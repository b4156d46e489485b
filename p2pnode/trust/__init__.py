"""Who said it: signed envelopes around what peers tell each other."""
