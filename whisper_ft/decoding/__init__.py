"""Audio to text: greedy and beam decoding, long recordings, timestamps, and evaluation of a set."""
