package kit.app

import android.content.res.AssetManager
import kit.text.TokenizerSettings
import org.json.JSONArray
import org.json.JSONObject

/** What `python -m export convert` wrote, in the app's assets under `model/`. */
class Artifact(val assets: AssetManager) {
    private val manifest = JSONObject(read("manifest.json"))
    private val tokenizer: JSONObject = manifest.getJSONObject("tokenizer")
    private val options: JSONObject = manifest.getJSONObject("options")
    private val graph: JSONObject = chooseGraph()

    val task: String = manifest.getString("task")
    val labels: List<String> = manifest.getJSONArray("labels").strings()
    val vocabulary: List<String> by lazy { read("vocab.txt").removeSuffix("\n").split("\n") }

    /** Path of the .tflite file among the assets. */
    val file: String = "$FOLDER/${graph.getString("path")}"
    val output: String = graph.getJSONArray("outputs").getString(0)

    /** Tokens that the file takes, and the most that the model was trained on. */
    val length: Int = graph.getInt("length")
    val limit: Int = minOf(length, manifest.getInt("max_len"))
    val padId: Int = tokenizer.getInt("pad_id")

    val settings = TokenizerSettings(
        lowerCase = tokenizer.getBoolean("lower_case"),
        stripAccents = tokenizer.getBoolean("strip_accents"),
        marksCase = tokenizer.getBoolean("marks_case"),
    )
    val abstainBelow: Double = options.optDouble("abstain_below", 0.0)
    val thresholds: Map<String, Double> = options.optJSONArray("thresholds")
        ?.let { found -> labels.withIndex().associate { (i, label) -> label to found.optDouble(i, 0.5) } }
        ?: emptyMap()

    init {
        require(tokenizer.getBoolean("wordpiece")) {
            "$FOLDER/manifest.json names a tokenizer other than WordPiece, which this app does not have."
        }
        require(!options.optBoolean("pairs")) {
            "$FOLDER/manifest.json describes a model of two texts, and this app asks for one."
        }
    }

    /** Take the first .tflite file of the manifest that was put into the assets. */
    private fun chooseGraph(): JSONObject {
        val there = assets.list(FOLDER).orEmpty().toSet()
        val graphs = manifest.getJSONArray("graphs")
        return (0 until graphs.length()).map(graphs::getJSONObject)
            .firstOrNull { it.getString("runtime") == "tflite" && it.getString("path") in there }
            ?: error("app/src/main/assets/$FOLDER holds none of the .tflite files that its manifest.json " +
                "names. Copy one of the artifact's there.")
    }

    private fun read(name: String): String =
        assets.open("$FOLDER/$name").use { it.readBytes().toString(Charsets.UTF_8) }

    private companion object {
        const val FOLDER = "model"
    }
}

private fun JSONArray.strings(): List<String> = (0 until length()).map(::getString)
