/* commands: the sub-commands, one file each. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "options.h"

extern const struct command command_generate;
extern const struct command command_info;
extern const struct command command_verify;
extern const struct command command_models;
extern const struct command command_doctor;
extern const struct command command_bench;
extern const struct command command_serve;
extern const struct command command_worker;
extern const struct command command_audit;
extern const struct command command_config;
extern const struct command command_backup;
extern const struct command command_fsck;
extern const struct command command_user;
extern const struct command command_ping;

#endif
