from django.shortcuts import redirect, render

from .models import Note


def index(request):
    return render(request, "notes/index.html", {"notes": Note.objects.order_by("id")})


def add(request, text):
    Note.objects.create(text=text)
    return redirect("/")
