"""What an edge does with the state it leaves: one file per kind of edge."""
