package kit.text

import kotlin.math.min

/** Token ids of one run of the model; `pieces` has null for [CLS] and [SEP]. */
class Window(val ids: IntArray, val pieces: List<Piece?>)

/** Where a word's first piece stands, and the UTF-16 units of the word in the text. */
data class Word(val window: Int, val token: Int, val begin: Int, val end: Int)

private const val OVERLAP = 16 // tokens that a window shares with the one before

/** Encode a text in windows of at most `limit` tokens: nothing is cut. */
fun Tokenizer.windows(text: String, limit: Int): List<Window> {
    val pieces = pieces(text)
    val room = limit - 2
    val step = room - min(OVERLAP, room / 2)
    val windows = mutableListOf<Window>()
    var start = 0
    do {
        val part = pieces.subList(start, min(start + room, pieces.size))
        windows += Window(
            intArrayOf(open) + part.map { it.id } + close, listOf(null) + part + listOf(null),
        )
        start += step
    } while (start + room - step < pieces.size)
    return windows
}

/** Find each word's first piece, in the window that shows most around it. */
fun placeWords(windows: List<Window>, skipped: Set<Int>): List<Word> {
    val words = sortedMapOf<Int, Word>()
    val rooms = mutableMapOf<Int, Int>() // tokens to the nearer edge of the window
    windows.forEachIndexed { number, window ->
        var before: Int? = null
        window.pieces.forEachIndexed pieces@{ token, piece ->
            if (piece == null || piece.id in skipped) return@pieces
            val known = words[piece.word] ?: Word(number, token, piece.begin, piece.end)
            words[piece.word] =
                known.copy(begin = min(known.begin, piece.begin), end = maxOf(known.end, piece.end))
            // A window that opens inside a word does not show that word's first piece.
            val inside = token == 1 && number > 0 && isInside(windows, window, piece)
            val room = min(token, window.ids.size - 1 - token)
            if (piece.word != before && !inside && room >= (rooms[piece.word] ?: -1)) {
                rooms[piece.word] = room
                words[piece.word] = words.getValue(piece.word).copy(window = number, token = token)
            }
            before = piece.word
        }
    }
    return words.values.toList()
}

/** Tell whether another window holds an earlier piece of the word that this one opens with. */
private fun isInside(windows: List<Window>, window: Window, first: Piece): Boolean =
    windows.any { other ->
        other !== window && other.pieces.any { it != null && it.word == first.word && it.begin < first.begin }
    }
