"""Transcription of audio files with a model, into texts and subtitles."""
