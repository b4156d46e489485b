"""The directory of announcements: signed records on Kademlia, or in memory for tests."""
