"""Web server on this machine: a page to try a model on, and the transcription routes of OpenAI's API."""
