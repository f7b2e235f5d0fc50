// An OpenID provider for tests: node provider.mjs '{"port", "redirect_uri", "client_id", "client_secret", "people"}'.
// Whoever names one of the people is logged in; `mfa` in the form is a second factor. No consent is asked for.
import { generateKeyPairSync } from "node:crypto";
import { Provider } from "oidc-provider";

const options = JSON.parse(process.argv[2]);
const issuer = `http://localhost:${options.port}`;
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const provider = new Provider(issuer, {
  jwks: { keys: [{ ...key, kid: "test", use: "sig", alg: "ES256" }] },
  clients: [{
    client_id: options.client_id, client_secret: options.client_secret, redirect_uris: [options.redirect_uri],
    id_token_signed_response_alg: "ES256",
  }],
  cookies: { keys: ["test"] },
  pkce: { required: () => true },
  conformIdTokenClaims: false, // the claims of the scopes are in the ID token
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"], acr: null, amr: null, auth_time: null },
  acrValues: ["mfa"],
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_ctx, id) => options.people[id] && { accountId: id, claims: () => ({ sub: id, ...options.people[id] }) },
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope("openid profile");
    await grant.save();
    return grant;
  },
});
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith("/interaction/")) return next();
  if (ctx.method === "GET") {
    ctx.type = "html";
    ctx.body = `<!doctype html><title>Provider</title><form method="post" action="${ctx.path}">
      <label>Who<input name="who"></label><label><input type="checkbox" name="mfa">with a second factor</label>
      <button>Sign in</button></form>`;
    return undefined;
  }
  const chunks = [];
  for await (const chunk of ctx.req) chunks.push(chunk);
  const form = new URLSearchParams(Buffer.concat(chunks).toString());
  const factor = form.has("mfa") ? { acr: "mfa", amr: ["pwd", "otp"] } : { amr: ["pwd"] };
  ctx.respond = false;
  return provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: form.get("who"), ...factor } });
});
provider.listen(options.port, "localhost", () => console.log("ready"));
