"""The one exception that means "the user's input is wrong"."""


class InputError(ValueError):
    """A mistake in a recipe, space, file or argument: says the rule, the fact and the way out.

    The command line prints it as a single line and exits with code 2.
    """
