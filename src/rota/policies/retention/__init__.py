"""How long the KV of a program is kept between two of its turns."""
