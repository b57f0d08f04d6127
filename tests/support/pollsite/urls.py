"""Where everything is: polls, admin, static files."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

from tests.support.pollsite import views

polls = [
    path("", views.IndexView.as_view(), name="index"),
    path("<int:pk>/", views.DetailView.as_view(), name="detail"),
    path("<int:pk>/results/", views.ResultsView.as_view(), name="results"),
    path("<int:question_id>/vote/", views.vote, name="vote"),
]
urlpatterns = [
    path("polls/", include((polls, "polls"))),
    path("admin/", admin.site.urls),
    path("static/<path:path>", serve, {"insecure": True}),
]
