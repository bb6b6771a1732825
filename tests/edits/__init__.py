"""What a team does to its repo in a year. An edit makes a change, yields, sees that it is there."""
