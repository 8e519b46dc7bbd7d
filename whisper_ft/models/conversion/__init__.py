"""Binary formats of other engines: their files read and written, and a Hugging Face folder made from them."""
