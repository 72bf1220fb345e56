from surefoot.training import numerics

# Fails if torch was imported before tests/conftest.py had set the environment.
numerics.pin("portable", threads=1)
