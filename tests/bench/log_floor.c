/* The floor that log capture is measured against.
 *
 *   log_floor write SIZE TOTAL         writes lines of 100 bytes to stdout, SIZE bytes at a time
 *   log_floor copy FILE SIZE TOTAL     the same through a pipe, copied to FILE 64 KiB at a time
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void put(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t done = write(fd, bytes, length);
        if (done <= 0)
            _exit(1);
        bytes += done;
        length -= (size_t)done;
    }
}

static void produce(int fd, size_t size, size_t total)
{
    /* Every write ends at a line end. */
    char *lines = malloc(size);
    memset(lines, 'x', size);
    for (size_t end = 99; end < size; end += 100)
        lines[end] = '\n';
    lines[size - 1] = '\n';
    for (size_t done = 0; done < total; done += size)
        put(fd, lines, size);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "write") == 0) {
        produce(1, strtoul(argv[2], 0, 10), strtoul(argv[3], 0, 10));
        return 0;
    }
    if (argc != 5 || strcmp(argv[1], "copy") != 0)
        return 2;
    int ends[2];
    if (pipe(ends) != 0)
        return 1;
    if (fork() == 0) {
        close(ends[0]);
        produce(ends[1], strtoul(argv[3], 0, 10), strtoul(argv[4], 0, 10));
        _exit(0);
    }
    close(ends[1]);
    int file = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0640);
    if (file < 0)
        return 1;
    static char buffer[64 * 1024];
    ssize_t length;
    while ((length = read(ends[0], buffer, sizeof buffer)) > 0)
        put(file, buffer, (size_t)length);
    wait(0);
    return 0;
}
