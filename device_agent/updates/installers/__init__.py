"""How each kind of update is put in place, and back."""
