"""What a caption of a CT or MR image says about the image itself: modality, plane, body part, side.

Small tables of words; a text may name several values of a field, or none.
"""

from __future__ import annotations

import re

TERMS: dict[str, dict[str, str]] = {
    "modality": {
        "CT": r"ct|cts|cta|computed tomograph\w*|hounsfield|hu|\w*cect|ncct|bone windows?",
        "MR": r"mri?s?|mra|mrv|magnetic resonance|t1\w*|t2\w*|flair|dwi|adc|stir|gadolinium|gre|fiesta|post ?gad\w*",
        "radiograph": r"radiographs?|x ?rays?|plain films?|scout",
        "ultrasound": r"ultraso\w+|sonogra\w+|doppler",
        "nuclear": r"pet|spect|scintigra\w+|bone scan",
        "angiogram": r"angiogra\w+|cta|mra|mrv|venogra\w+|dsa",
    },
    "plane": {
        "axial": r"axial|transverse|transaxial",
        "coronal": r"coronal|coronals",
        "sagittal": r"sagit?tal|parasagittal|midsagittal",
    },
    "location": {
        "brain": r"brain|cerebr\w+|cerebell\w+|frontal lobes?|parietal|temporal lobes?|occipital|ventric\w+|thalam\w+"
        r"|pons|pontine|basal ganglia|intracranial|cranial|corpus callosum|midbrain|white matter|medulla|pituitary"
        r"|sella\w*|suprasellar|dura|dural|subdural|cavernous sinus|hippocamp\w+|posterior fossa|falx|sulc\w+",
        "head and neck": r"neck|orbit\w*|sinus|sinuses|maxill\w+|mandib\w+|parotid|thyroid|nasal|nasophary\w+|larynx"
        r"|laryn\w+|pharyn\w+|globe|optic|mastoid\w*|tongue|oral",
        "spine": r"spine|spinal|vertebra\w*|cervical|lumbar|thoracic spine|disc|discs|disk|disks|cord|conus|sacr\w+"
        r"|[cl]\d|t(?:[3-9]|1[0-2])",
        "chest": r"lungs?|pulmonary|chest|thora\w+|mediastin\w+|pleura\w*|hilar|hilum|bronch\w+|trachea\w*|esophag\w+"
        r"|upper lobes?|lower lobes?|middle lobe|breasts?|ribs?",
        "heart and vessels": r"heart|cardiac|atri\w+|aort\w+|pericard\w+|aneurysms?|carotid|vena cava|ivc|coronary"
        r"|arter\w+|venous|veins?",
        "abdomen": r"abdom\w+|liver|hepat\w+|spleen|splenic|pancrea\w+|gallbladder|bil(?:e|iary)|stomach|gastric|bowel"
        r"|colon\w*|duoden\w+|jejun\w+|ile(?:um|al)|append\w+|mesent\w+|periton\w+|omental|retroperiton\w+|adrenals?",
        "pelvis and urinary": r"kidneys?|renal|ureter\w*|bladder|uter\w+|ovar\w+|adnex\w+|prostat\w+|testic\w+|pelvi\w+"
        r"|hydronephrosis|scrot\w+|vagin\w+",
        "bones and muscles": r"femur|femoral|tibia\w*|fibula\w*|humer\w+|knee|hip|shoulder|elbow|wrist|ankle|foot|hand"
        r"|menisc\w+|ligament\w*|tendon\w*|muscl\w+|bone|bones|cortical bone|patell\w+|calcane\w+|rotator cuff|iliac",
    },
    "side": {
        "left": r"left\w*",
        "right": r"right\w*",
        "both": r"bilateral\w*|both|bihemispheric|biapical|bibasilar",
    },
}

_PATTERNS = {
    field: {value: re.compile(rf"\b(?:{words})\b") for value, words in values.items()}
    for field, values in TERMS.items()
}
_OTHER = re.compile(r"[^\w]+")


def imaging_terms(text: str) -> dict[str, frozenset[str]]:
    """For each field of :data:`TERMS`, the values that a text names."""
    words = _OTHER.sub(" ", text.lower())
    return {
        field: frozenset(value for value, pattern in values.items() if pattern.search(words))
        for field, values in _PATTERNS.items()
    }
