"""Which of the mesh's 478 points are what (MediaPipe's numbers); left to right in the picture."""

EYE_CORNERS = [33, 263]  # the outer ones
FOREHEAD = 10
CHEEKS = ([50, 101, 205], [280, 330, 425])
UPPER_OUTER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]  # lips, corner to corner
LOWER_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
UPPER_LIDS = (  # an eye each, corner to corner
    [33, 246, 161, 160, 159, 158, 157, 173, 133],
    [362, 398, 384, 385, 386, 387, 388, 466, 263],
)
LOWER_LIDS = (
    [33, 7, 163, 144, 145, 153, 154, 155, 133],
    [362, 382, 381, 380, 374, 373, 390, 249, 263],
)
BROWS = (  # upper edge and lower edge
    [70, 63, 105, 66, 107, 46, 53, 52, 65, 55],
    [336, 296, 334, 293, 300, 285, 295, 282, 283, 276],
)
INNER_BROWS = ([107, 66, 55, 65], [336, 296, 285, 295])
