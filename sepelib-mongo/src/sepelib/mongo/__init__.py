"""Fields, find_and_modify, sequential ids and a real database for tests, on mongoengine."""
