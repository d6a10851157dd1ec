from django.urls import path
from notes import views

urlpatterns = [path("", views.index), path("add/<str:text>", views.add)]
