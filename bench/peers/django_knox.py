"""Django REST Knox, as its documentation sets it up, with one route that wants a token. Run by gunicorn."""

import os
import sys

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import path

settings.configure(
    SECRET_KEY="bench",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "knox"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["BENCH_NAME"],
            "USER": os.environ["BENCH_USER"],
            "PASSWORD": os.environ["BENCH_PASSWORD"],
            "HOST": os.environ["BENCH_HOST"],
            "CONN_MAX_AGE": 600,
            "OPTIONS": {"options": "-c search_path=knox"},
        }
    },
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["knox.auth.TokenAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    },
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from rest_framework.response import Response  # noqa: E402  # after the settings
from rest_framework.views import APIView  # noqa: E402


class Small(APIView):
    def get(self, _request: object) -> Response:
        return Response({"status": "up"})


urlpatterns = [path("small", Small.as_view())]
application = get_wsgi_application()

if __name__ == "__main__":
    # Makes the tables and one token, and prints it.
    from django.contrib.auth.models import User
    from django.db import connection
    from knox.models import AuthToken

    with connection.cursor() as cursor:
        cursor.execute("create schema if not exists knox")
    call_command("migrate", verbosity=0)
    user, _ = User.objects.get_or_create(username="bench")
    sys.stdout.write(AuthToken.objects.create(user)[1])
