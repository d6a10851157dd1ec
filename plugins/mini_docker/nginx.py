"""nginx's configuration for a static site. Pure.

`/about` finds about.html. Unknown paths give the fallback page with 200, or 404 with 404.html's content; folders give
their index, with a redirect to the slash; names that begin with a dot are hidden (all but `.well-known`); what is
hashed is cached for good, all else is revalidated. Everything is written below /tmp, so that it runs as any user and
read-only.
"""

from __future__ import annotations

from mini_core.types import StaticSite

CONFIG_NAME = "nginx.conf.mini"

START = (
    "sh",
    "-c",
    'sed "s/listen 8080/listen ${PORT:-8080}/" /etc/nginx/nginx.conf > /tmp/nginx.conf'
    " && exec nginx -c /tmp/nginx.conf",
)
"""nginx reads no environment: the port is written into a copy of the configuration when it starts."""

_CONFIG = """\
# Made by mini. Listens on 8080, or what PORT says.
daemon off;
worker_processes 2;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;

events { worker_connections 1024; }

http {
    include /etc/nginx/mime.types;
    types {
        application/javascript mjs;
        application/manifest+json webmanifest;
        image/avif avif;
    }
    default_type application/octet-stream;
    charset utf-8;
    charset_types text/css text/plain text/xml application/javascript application/json application/manifest+json;
    access_log off;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75s;
    absolute_redirect off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    gzip on;
    gzip_vary on;
    gzip_proxied any;
    gzip_min_length 1024;
    gzip_types text/css text/plain text/xml application/javascript application/json application/manifest+json
               application/xml application/rss+xml application/wasm image/svg+xml font/ttf font/otf;

    server {
        listen 8080;
        root /srv/www;
        index index.html index.htm;
%(errors)s
        location / {
            add_header Cache-Control "no-cache";
            try_files $uri $uri.html $uri/ %(missing)s;
        }
        location ~ /\\.(?!well-known(?:/|$)) { return 404; }
        location = /%(config)s { return 404; }
%(immutable)s    }
}
"""

_IMMUTABLE = """\
        location ^~ %(prefix)s {
            add_header Cache-Control "public, max-age=31536000, immutable";
            try_files $uri =404;
        }
"""


def config(site: StaticSite) -> str:
    """The whole nginx.conf."""
    fallback = "/" + site.fallback.lstrip("/") if site.fallback else ""
    prefixes = ("/" + prefix.strip("/") + "/" for prefix in site.immutable if prefix.strip("/"))
    errors = f"        error_page 403 =200 {fallback};\n" if fallback else "        error_page 403 =404 /404.html;\n"
    return _CONFIG % {
        "errors": errors + "        error_page 404 /404.html;\n",
        "missing": fallback or "=404",
        "config": CONFIG_NAME,
        "immutable": "".join(_IMMUTABLE % {"prefix": prefix} for prefix in prefixes),
    }
