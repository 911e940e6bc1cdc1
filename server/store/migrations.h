/* migrations: the schema's history, made at build time from migrations/NNN_name.sql by tools/embed_migrations.py. */
#ifndef SERVER_STORE_MIGRATIONS_H
#define SERVER_STORE_MIGRATIONS_H

struct migration {
    const char *name; /* "001_initial" */
    const char *sql;
};

extern const struct migration migrations[];
extern const int n_migrations;

#endif
