"""The documents are run: what they tell people to type works, and shows what they say."""
