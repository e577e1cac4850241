-- publish <n> (<topic> <head> <text>)*
local function verb()
  local answers, wrong, first = publish(ARGV, 6, tonumber(ARGV[5]))
  return wrong or { 'ok', first or answers }
end
