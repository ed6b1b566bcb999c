"""There is no module ``gradclip.transformers``: it is ``gradclip.backends.transformers``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
