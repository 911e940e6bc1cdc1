/* store/settings: what an administrator set while the studio ran. */
#ifndef SERVER_STORE_SETTINGS_H
#define SERVER_STORE_SETTINGS_H

#include "base/settings.h"
#include "store/audit.h"

/* Takes the table's rows as SETTING_FROM_DATABASE. A row that this version does not accept is logged and skipped. */
enum problem_code settings_load(struct store *store, struct settings *settings, struct problem *problem);
/* Checks, keeps with the audit row "setting.changed" ({"from", "to"}; null is the default), and takes effect. All of
 * changes (an object name → text, or null for the default) or none. Errors: INVALID (field: the name), CONFLICT (not live,
 * or a stronger source has spoken). */
enum problem_code settings_change(struct store *store, struct settings *settings, const struct actor *actor,
                                  const json_t *changes, struct problem *problem);

#endif
