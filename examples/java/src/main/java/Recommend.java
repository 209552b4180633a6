import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.tensorflow.Result;
import org.tensorflow.SavedModelBundle;
import org.tensorflow.Tensor;
import org.tensorflow.TensorFlow;
import org.tensorflow.ndarray.StdArrays;
import org.tensorflow.proto.DataType;
import org.tensorflow.types.TFloat32;
import org.tensorflow.types.TInt32;
import org.tensorflow.types.TInt64;
import org.tensorflow.types.TString;

/**
 * Lists items for a user with TensorFlow for Java, and asks for the probability of each pair.
 *
 * <p>Arguments: the export, the user's id, the length of the list, ids of items to leave out. Prints a line for each
 * item, with tabs between: its id, score and probability from `recommend`, and the probability from `serving_default`. For a model with
 * one feature on each side; ids are integers or text, as the signature says.
 */
public final class Recommend {
  public static void main(String[] arguments) {
    String user = arguments[1];
    int k = Integer.parseInt(arguments[2]);
    System.err.println("TensorFlow " + TensorFlow.version());
    try (SavedModelBundle model = SavedModelBundle.load(arguments[0], "serve")) {
      Set<String> features = new HashSet<>(model.function("recommend").signature().inputNames());
      features.removeAll(Set.of("exclude", "k"));
      String userFeature = features.iterator().next();
      features = new HashSet<>(model.function("serving_default").signature().inputNames());
      features.remove(userFeature);
      String itemFeature = features.iterator().next();

      // A row of `exclude` is padded with "" or -1; so one that leaves out nothing has at least that.
      String[] exclude = new String[Math.max(1, arguments.length - 3)];
      exclude[0] = isText(model, "recommend", "exclude") ? "" : "-1";
      System.arraycopy(arguments, 3, exclude, 0, arguments.length - 3);

      Map<String, Tensor> inputs = new HashMap<>();
      inputs.put(userFeature, vector(model, "recommend", userFeature, user));
      inputs.put("exclude", matrix(model, "recommend", "exclude", exclude));
      inputs.put("k", TInt32.scalarOf(k));
      try (Result answer = model.function("recommend").call(inputs)) {
        Tensor items = answer.get("items").get();
        TFloat32 scores = (TFloat32) answer.get("scores").get();
        TFloat32 probabilities = (TFloat32) answer.get("probabilities").get();
        for (long rank = 0; rank < items.shape().get(1); rank++) {
          String item =
              items instanceof TString text
                  ? text.getObject(0, rank)
                  : Long.toString(((TInt64) items).getLong(0, rank));
          Map<String, Tensor> pair = new HashMap<>();
          pair.put(userFeature, vector(model, "serving_default", userFeature, user));
          pair.put(itemFeature, vector(model, "serving_default", itemFeature, item));
          try (Result prediction = model.function("serving_default").call(pair)) {
            TFloat32 probability = (TFloat32) prediction.get("probability").get();
            System.out.printf(
                "%s\t%.9g\t%.9g\t%.9g%n",
                item, scores.getFloat(0, rank), probabilities.getFloat(0, rank), probability.getFloat(0));
          }
        }
      }
    }
  }

  private static boolean isText(SavedModelBundle model, String signature, String input) {
    return model.function(signature).signature().getInputs().get(input).dataType == DataType.DT_STRING;
  }

  private static Tensor vector(SavedModelBundle model, String signature, String input, String token) {
    return isText(model, signature, input) ? TString.vectorOf(token) : TInt64.vectorOf(Long.parseLong(token));
  }

  private static Tensor matrix(SavedModelBundle model, String signature, String input, String[] tokens) {
    if (isText(model, signature, input)) {
      return TString.tensorOf(StdArrays.ndCopyOf(new String[][] {tokens}));
    }
    long[] numbers = new long[tokens.length];
    for (int i = 0; i < tokens.length; i++) {
      numbers[i] = Long.parseLong(tokens[i]);
    }
    return TInt64.tensorOf(StdArrays.ndCopyOf(new long[][] {numbers}));
  }
}
