"""The two stages at work: filter documents, then rank them and answer."""
