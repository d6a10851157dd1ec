"""The database's schema, as numbered steps. A step that was released is never edited: add another."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """CREATE TABLE apps (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, handle TEXT NOT NULL UNIQUE,
            created_at REAL NOT NULL, created_by TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'new',
            asleep INTEGER NOT NULL DEFAULT 0, maintenance INTEGER NOT NULL DEFAULT 0,
            hold INTEGER NOT NULL DEFAULT 0, release INTEGER, deployed_at REAL, prepared INTEGER NOT NULL DEFAULT 0,
            limits TEXT NOT NULL DEFAULT '{}')""",
        """CREATE TABLE domains (
            domain TEXT PRIMARY KEY, app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE,
            added_at REAL NOT NULL)""",
        """CREATE TABLE env (
            app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE, name TEXT NOT NULL,
            build INTEGER NOT NULL DEFAULT 0, value BLOB NOT NULL, set_at REAL NOT NULL,
            PRIMARY KEY (app, build, name))""",
        """CREATE TABLE formation (
            app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE, process TEXT NOT NULL,
            quantity INTEGER NOT NULL, PRIMARY KEY (app, process))""",
        """CREATE TABLE volumes (
            app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE, target TEXT NOT NULL, name TEXT NOT NULL,
            PRIMARY KEY (app, target), UNIQUE (app, name))""",
        """CREATE TABLE releases (
            app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE, version INTEGER NOT NULL,
            state TEXT NOT NULL, data TEXT NOT NULL, env BLOB NOT NULL, addons BLOB NOT NULL,
            fingerprint TEXT NOT NULL, build_key TEXT NOT NULL, created_at REAL NOT NULL,
            image_kept INTEGER NOT NULL DEFAULT 1, extras TEXT NOT NULL, PRIMARY KEY (app, version))""",
        """CREATE TABLE deploys (
            id INTEGER PRIMARY KEY AUTOINCREMENT, app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE,
            kind TEXT NOT NULL, state TEXT NOT NULL, step TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
            created_at REAL NOT NULL, started_at REAL, finished_at REAL, timeout REAL NOT NULL,
            base_url TEXT NOT NULL DEFAULT '', archive TEXT NOT NULL DEFAULT '', digest TEXT NOT NULL DEFAULT '',
            request BLOB NOT NULL, old_release INTEGER, release INTEGER, generation INTEGER,
            unchanged INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0, failure TEXT)""",
        "CREATE UNIQUE INDEX one_running_deploy ON deploys(app) WHERE state = 'running'",
        "CREATE INDEX deploys_of_app ON deploys(app, id)",
        """CREATE TABLE deploy_events (
            deploy INTEGER NOT NULL REFERENCES deploys(id) ON DELETE CASCADE, seq INTEGER NOT NULL,
            at REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, data TEXT NOT NULL,
            PRIMARY KEY (deploy, seq)) WITHOUT ROWID""",
        """CREATE TABLE instances (
            id TEXT PRIMARY KEY, app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE,
            release INTEGER NOT NULL, process TEXT NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL,
            deploy INTEGER, phase TEXT NOT NULL, host TEXT, port INTEGER, found_host TEXT, found_port INTEGER,
            routed INTEGER NOT NULL DEFAULT 0, healthy INTEGER NOT NULL DEFAULT 0, created_at REAL NOT NULL,
            started_at REAL, crashes INTEGER NOT NULL DEFAULT 0, crashing_since REAL, next_try REAL,
            exit_code INTEGER, signal INTEGER, oom INTEGER NOT NULL DEFAULT 0,
            engine_restarts INTEGER NOT NULL DEFAULT 0)""",
        "CREATE UNIQUE INDEX one_instance_an_endpoint ON instances(host, port) WHERE port IS NOT NULL",
        "CREATE INDEX instances_of_app ON instances(app)",
        """CREATE TABLE keys (
            name TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, app TEXT NOT NULL DEFAULT '',
            created_at REAL NOT NULL, expires_at REAL, used_at REAL)""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL,
            app TEXT NOT NULL, data TEXT NOT NULL)""",
        "CREATE INDEX events_of_app ON events(app, id)",
        "CREATE TABLE cursors (plugin TEXT PRIMARY KEY, event INTEGER NOT NULL)",
        """CREATE TABLE plugin_data (
            plugin TEXT NOT NULL, app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE, key TEXT NOT NULL,
            value BLOB NOT NULL, PRIMARY KEY (plugin, app, key))""",
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, app TEXT NOT NULL, plugin TEXT NOT NULL,
            data TEXT NOT NULL, created_at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
            next_try REAL NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '')""",
    ),
    (
        """CREATE TABLE cron_runs (
            app INTEGER NOT NULL REFERENCES apps(id) ON DELETE CASCADE, entry TEXT NOT NULL, slot REAL NOT NULL,
            instance TEXT NOT NULL, PRIMARY KEY (app, entry, slot))""",
    ),
    (
        "ALTER TABLE instances ADD COLUMN command TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE instances ADD COLUMN attached INTEGER NOT NULL DEFAULT 0",
    ),
    (
        "ALTER TABLE apps DROP COLUMN prepared",
        "ALTER TABLE deploys DROP COLUMN old_release",
    ),
)
"""`MIGRATIONS[n - 1]` leads from schema n - 1 to schema n; 0 is an empty file."""

SCHEMA = len(MIGRATIONS)
