/* The floor: the least that restarts a program. It blocks in waitpid and calls posix_spawn.
 *
 *   floor COUNT WITNESS FIFO [session]
 *
 * With a session each program leads one, as under a supervisor that can signal a whole family.
 * The kernel's autogroup schedules sessions against each other: on a busy machine that shows.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 10000 };
static volatile pid_t pids[MOST];
static unsigned count;
static posix_spawnattr_t attributes;

static void end(int signal)
{
    (void)signal;
    for (unsigned slot = 0; slot < count; slot++)
        if (pids[slot] > 0)
            kill(pids[slot], SIGKILL);
    _exit(0);
}

static void start(unsigned slot, char **argv)
{
    extern char **environ;
    char number[16];
    pid_t pid;
    snprintf(number, sizeof number, "%u", slot);
    char *command[] = {argv[2], argv[3], number, 0};
    if (posix_spawn(&pid, argv[2], 0, &attributes, command, environ) != 0)
        exit(1);
    pids[slot] = pid;
}

int main(int argc, char **argv)
{
    if (argc < 4 || (count = (unsigned)atoi(argv[1])) > MOST)
        return 2;
    posix_spawnattr_init(&attributes);
    if (argc > 4)
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    signal(SIGTERM, end);
    for (unsigned slot = 0; slot < count; slot++)
        start(slot, argv);
    for (;;) {
        pid_t gone = waitpid(-1, 0, 0);
        for (unsigned slot = 0; slot < count; slot++)
            if (pids[slot] == gone) {
                start(slot, argv);
                break;
            }
    }
}
