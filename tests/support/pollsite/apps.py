"""The polls application's configuration."""

from django.apps import AppConfig


class PollsConfig(AppConfig):
    name = "tests.support.pollsite"
    label = "polls"
