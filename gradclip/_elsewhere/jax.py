"""There is no module ``gradclip.jax``: it is ``gradclip.backends.jax``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
