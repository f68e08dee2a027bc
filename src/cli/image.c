#include "cli/cli.h"

#include "image/image.h"

/* image/ reads its own words: its options (--cmd, --env, ...) are nobody else's. */
int cmd_image(struct cli_opts *o, int argc, char **argv)
{
    return image_cli(argc, argv, o->state);
}
