"""Django's tutorial application, polls, with its admin site, in one package."""
