"""There is no module ``gradclip.optax``: it is ``gradclip.backends.optax``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
