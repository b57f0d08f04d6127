"""The admin site's view of questions, with their choices."""

from django.contrib import admin

from tests.support.pollsite.models import Choice, Question


class ChoiceInline(admin.TabularInline):
    model = Choice
    extra = 2


@admin.register(Question)
class QuestionAdmin(admin.ModelAdmin):
    fields = ["question_text"]
    inlines = [ChoiceInline]
