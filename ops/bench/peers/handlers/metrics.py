"""A handler as most are: it waits for something else, such as a database that takes 20 ms."""

import time


def handle(event):
    time.sleep(0.02)
